//! What the fuzz targets check, as plain functions.

pub mod bfd;
pub mod manifest;
pub mod wire;
