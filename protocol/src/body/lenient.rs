//! Reading what old clients write: quoted numbers, enums as ordinals, nulls where a list belongs. Lists and objects have
//! limits.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// A 64-bit integer, quoted or not; null is 0.
pub(super) fn integer<'de, D: Deserializer<'de>>(source: D) -> Result<i64, D::Error> {
    source.deserialize_any(Integer)
}

struct Integer;

impl Visitor<'_> for Integer {
    type Value = i64;
    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an integer, quoted or not")
    }
    fn visit_i64<E: Error>(self, value: i64) -> Result<i64, E> {
        Ok(value)
    }
    fn visit_u64<E: Error>(self, value: u64) -> Result<i64, E> {
        i64::try_from(value).map_err(E::custom)
    }
    fn visit_str<E: Error>(self, value: &str) -> Result<i64, E> {
        value.parse().map_err(E::custom)
    }
    fn visit_unit<E: Error>(self) -> Result<i64, E> {
        Ok(0)
    }
}

/// At most `MAX` 32-bit integers, each quoted or not (the Go client quotes a subscription's codes); null is none.
pub(super) fn integers<'de, D: Deserializer<'de>, const MAX: usize>(source: D) -> Result<Vec<i32>, D::Error> {
    let read = list::<D, Quoted, MAX>(source)?;
    Ok(read.into_iter().map(|Quoted(value)| value).collect())
}

struct Quoted(i32);

impl<'de> Deserialize<'de> for Quoted {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        let value = integer(source)?;
        i32::try_from(value).map(Self).map_err(D::Error::custom)
    }
}

/// A list of at most `MAX` entries; null is none. More are an error before memory is taken for them: an entry may have
/// fifty times its size on the wire.
pub(super) fn list<'de, D, T, const MAX: usize>(source: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    source.deserialize_any(ListVisitor::<T, MAX>(PhantomData))
}

struct ListVisitor<T, const MAX: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for ListVisitor<T, MAX> {
    type Value = Vec<T>;
    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "a list of at most {MAX} entries")
    }
    fn visit_unit<E: Error>(self) -> Result<Vec<T>, E> {
        Ok(Vec::new())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Vec<T>, A::Error> {
        let mut list = Vec::new();
        while let Some(entry) = entries.next_element()? {
            if list.len() == MAX {
                return Err(A::Error::custom(format_args!(
                    "more than {MAX} entries in a list, the limit is {MAX}"
                )));
            }
            list.push(entry);
        }
        Ok(list)
    }
}

/// The same for names and their values.
pub(super) fn map<'de, D, T, const MAX: usize>(source: D) -> Result<BTreeMap<String, T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    source.deserialize_any(MapVisitor::<T, MAX>(PhantomData))
}

struct MapVisitor<T, const MAX: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for MapVisitor<T, MAX> {
    type Value = BTreeMap<String, T>;
    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "an object of at most {MAX} fields")
    }
    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(BTreeMap::new())
    }
    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self::Value, A::Error> {
        let mut map = BTreeMap::new();
        while let Some((name, value)) = fields.next_entry()? {
            map.insert(name, value);
            if map.len() > MAX {
                return Err(A::Error::custom(format_args!(
                    "more than {MAX} fields in an object, the limit is {MAX}"
                )));
            }
        }
        Ok(map)
    }
}

/// Any value, or the type's default for null.
pub(super) fn or_default<'de, D, T>(source: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(source)?.unwrap_or_default())
}

/// An enum that Java knows by name and old clients by ordinal.
pub(super) trait WireEnum: Sized + Default {
    fn from_name(name: &str) -> Option<Self>;
    fn from_ordinal(ordinal: u64) -> Option<Self>;
}

/// Reads a [`WireEnum`]; unknown names and ordinals are the default, as newer clients have more.
pub(super) fn wire_enum<'de, D: Deserializer<'de>, T: WireEnum>(source: D) -> Result<T, D::Error> {
    source.deserialize_any(EnumVisitor(PhantomData))
}

struct EnumVisitor<T>(PhantomData<T>);

impl<T: WireEnum> Visitor<'_> for EnumVisitor<T> {
    type Value = T;
    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an enum's name or ordinal")
    }
    fn visit_str<E: Error>(self, name: &str) -> Result<T, E> {
        Ok(T::from_name(name).unwrap_or_default())
    }
    fn visit_u64<E: Error>(self, ordinal: u64) -> Result<T, E> {
        Ok(T::from_ordinal(ordinal).unwrap_or_default())
    }
    fn visit_i64<E: Error>(self, _ordinal: i64) -> Result<T, E> {
        Ok(T::default())
    }
    fn visit_unit<E: Error>(self) -> Result<T, E> {
        Ok(T::default())
    }
}

/// Makes such an enum, written by name. The variants stand in the order of their ordinals.
macro_rules! wire_enums {
    ($(#[$outer:meta])* $kind:ident, default $default:ident {
        $($(#[$inner:meta])* $variant:ident = $name:literal;)+
    }) => {
        $(#[$outer])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $kind {
            $($(#[$inner])* $variant,)+
        }

        impl $kind {
            /// The name on the wire.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }

        impl Default for $kind {
            fn default() -> Self {
                Self::$default
            }
        }

        impl crate::body::lenient::WireEnum for $kind {
            fn from_name(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$variant),)+
                    _ => None,
                }
            }
            fn from_ordinal(ordinal: u64) -> Option<Self> {
                [$(Self::$variant),+].get(usize::try_from(ordinal).ok()?).copied()
            }
        }

        impl serde::Serialize for $kind {
            fn serialize<S: serde::Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
                out.serialize_str(self.name())
            }
        }

        impl<'de> serde::Deserialize<'de> for $kind {
            fn deserialize<D: serde::Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
                crate::body::lenient::wire_enum(source)
            }
        }
    };
}
pub(super) use wire_enums;
