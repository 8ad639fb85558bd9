//! From tree to type: a deserializer whose errors know the place, the value, and what would be right.

use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeSeed, Deserializer, Expected, IntoDeserializer as _, MapAccess, SeqAccess, Unexpected,
    Visitor,
};
use serde::forward_to_deserialize_any;

use super::Fault;
use super::tree::{Branch, Entry, Tree};
use crate::meta::{nearest, suggestion};

/// Something wrong, as it travels from a value up to the resource and gathers its place on the way.
#[derive(Debug)]
pub(super) struct Misfit {
    /// Steps to the place, innermost first.
    path: Vec<String>,
    line: Option<u64>,
    value: Option<String>,
    message: String,
}

impl Misfit {
    /// Goes up one step; `line` is where the step is, for what has no place yet.
    fn within(mut self, step: String, line: u64) -> Self {
        self.path.push(step);
        self.line.get_or_insert(line);
        self
    }

    /// The error is of this value, unless it is of something inside.
    fn of(mut self, tree: &Tree) -> Self {
        if self.path.is_empty() && self.value.is_none() {
            self.line.get_or_insert(tree.line);
            self.value = tree.scalar();
            if let Some(value) = &self.value
                && !self.message.contains(value.as_str())
            {
                self.message = format!("'{value}' is refused: {}", self.message);
            }
        }
        self
    }

    /// The fault in the resource that `tree` is.
    pub(super) fn at(self, tree: &Tree) -> Fault {
        let mut field = String::new();
        for step in self.path.iter().rev() {
            if !field.is_empty() && !step.starts_with('[') {
                field.push('.');
            }
            field.push_str(step);
        }
        let line = self.line.unwrap_or(tree.line);
        Fault {
            line: Some(line),
            field,
            value: self.value,
            message: self.message,
        }
    }
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Misfit {}

impl de::Error for Misfit {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self {
            path: Vec::new(),
            line: None,
            value: None,
            message: message.to_string(),
        }
    }

    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::custom(format!(
            "{} is not what belongs here: write {}",
            found(unexpected),
            wanted(expected)
        ))
    }

    fn invalid_value(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(unexpected, expected)
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let hint = suggestion(nearest(variant, expected.iter().copied()));
        Self::custom(format!(
            "'{variant}' is no choice here{hint}; the choices are {}",
            expected.join(", ")
        ))
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        let hint = suggestion(nearest(field, expected.iter().copied()));
        Self {
            path: vec![field.to_owned()],
            ..Self::custom(format!(
                "'{field}' is no field here{hint}; the fields are {}",
                expected.join(", ")
            ))
        }
    }

    fn missing_field(field: &'static str) -> Self {
        Self {
            path: vec![field.to_owned()],
            ..Self::custom("is missing, and has no default")
        }
    }
}

fn found(unexpected: Unexpected<'_>) -> String {
    match unexpected {
        Unexpected::Bool(value) => format!("'{value}'"),
        Unexpected::Unsigned(value) => format!("the number '{value}'"),
        Unexpected::Signed(value) => format!("the number '{value}'"),
        Unexpected::Float(value) => format!("the number '{value}'"),
        Unexpected::Str(value) => format!("the text '{value}'"),
        Unexpected::Unit => "nothing ('null')".to_owned(),
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Map => "a mapping".to_owned(),
        other @ (Unexpected::Char(_)
        | Unexpected::Bytes(_)
        | Unexpected::Option
        | Unexpected::NewtypeStruct
        | Unexpected::Enum
        | Unexpected::UnitVariant
        | Unexpected::NewtypeVariant
        | Unexpected::TupleVariant
        | Unexpected::StructVariant
        | Unexpected::Other(_)) => other.to_string(),
    }
}

/// Rust's names of what was expected, in a manifest's words.
fn wanted(expected: &dyn Expected) -> String {
    let expected = expected.to_string();
    match expected.as_str() {
        "a string" => "text, in quotes if it looks like a number, true, false or null".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "u8" => "a whole number from 0 to 255".to_owned(),
        "u16" => "a whole number from 0 to 65535".to_owned(),
        "u32" => "a whole number from 0 to 4294967295".to_owned(),
        "u64" => "a whole number from 0".to_owned(),
        "f64" => "a number".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a map" => "a mapping".to_owned(),
        other if other.starts_with("struct ") => "a mapping of fields".to_owned(),
        _ => expected,
    }
}

/// A resource without the `apiVersion` and `kind` that were read before.
#[derive(Clone, Copy)]
pub(super) struct Body<'a>(pub(super) &'a Tree);

impl<'de> Deserializer<'de> for Body<'_> {
    type Error = Misfit;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        let Branch::Map(entries) = &self.0.branch else {
            return Value(self.0).deserialize_any(visitor);
        };
        let rest = entries
            .iter()
            .filter(|entry| !matches!(entry.key.as_str(), "apiVersion" | "kind"));
        visitor.visit_map(Fields { rest, current: None })
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

/// Any value.
pub(super) struct Value<'a>(pub(super) &'a Tree);

impl<'de> Deserializer<'de> for Value<'_> {
    type Error = Misfit;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        let visited = match &self.0.branch {
            Branch::Null => visitor.visit_unit(),
            Branch::Bool(value) => visitor.visit_bool(*value),
            Branch::Unsigned(value) => visitor.visit_u64(*value),
            Branch::Signed(value) => visitor.visit_i64(*value),
            Branch::Float(value) => visitor.visit_f64(*value),
            Branch::Text(value) => visitor.visit_str(value),
            Branch::List(items) => visitor.visit_seq(Items {
                rest: items.iter().enumerate(),
            }),
            Branch::Map(entries) => visitor.visit_map(Fields {
                rest: entries.iter(),
                current: None,
            }),
        };
        visited.map_err(|misfit| misfit.of(self.0))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        match &self.0.branch {
            Branch::Null => visitor.visit_none(),
            Branch::Bool(_)
            | Branch::Unsigned(_)
            | Branch::Signed(_)
            | Branch::Float(_)
            | Branch::Text(_)
            | Branch::List(_)
            | Branch::Map(_) => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        let visited = match self.0.text() {
            Some(text) => visitor.visit_enum(StrDeserializer::new(text)),
            None => Err(de::Error::custom(format!(
                "{} is no choice here; the choices are {}",
                self.0.words(),
                variants.join(", ")
            ))),
        };
        visited.map_err(|misfit: Misfit| misfit.of(self.0))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

/// A list's items.
struct Items<'a> {
    rest: std::iter::Enumerate<std::slice::Iter<'a, Tree>>,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Misfit;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Misfit> {
        let Some((i, item)) = self.rest.next() else {
            return Ok(None);
        };
        let value = seed.deserialize(Value(item));
        value
            .map(Some)
            .map_err(|misfit| misfit.within(format!("[{i}]"), item.line))
    }
}

/// A mapping's fields.
struct Fields<'a, I> {
    rest: I,
    current: Option<&'a Entry>,
}

impl<'a, 'de, I: Iterator<Item = &'a Entry>> MapAccess<'de> for Fields<'a, I> {
    type Error = Misfit;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Misfit> {
        self.current = self.rest.next();
        let Some(entry) = self.current else {
            return Ok(None);
        };
        let key = seed.deserialize(entry.key.as_str().into_deserializer());
        key.map(Some).map_err(|misfit: Misfit| Misfit {
            line: Some(entry.line),
            value: entry.value.scalar(),
            ..misfit
        })
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Misfit> {
        let Some(entry) = self.current else {
            return Err(de::Error::custom("a value was asked for before its key"));
        };
        let value = seed.deserialize(Value(&entry.value));
        value.map_err(|misfit| misfit.within(entry.key.clone(), entry.line))
    }
}
