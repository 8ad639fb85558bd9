//! What the fuzz targets check, as plain functions.

pub mod manifest;
pub mod wire;
