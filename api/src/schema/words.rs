//! The forms of values that are text in a manifest, for [`schemars`] attributes beside the fields.

use std::borrow::Cow;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::Metadata;
use crate::filter::Community;
use crate::host_endpoint::DEFAULT_ALLOW;
use crate::kubernetes::PortOrName;
use crate::policy::{ADMIN_TIER, BASELINE_TIER};
use crate::rule::{Family, Order, Port, Protocol};
use crate::selector::Selector;

/// A DNS-1123 label.
const LABEL: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
/// A DNS-1123 subdomain.
const SUBDOMAIN: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
/// The longest network in text: `ffff:…:255.255.255.255/128`.
const NETWORK_OCTETS: u8 = 49;

/// A protocol by name, in any case, or by number.
const PROTOCOL: &str = concat!(
    "^([Tt][Cc][Pp]|[Uu][Dd][Pp]|[Ss][Cc][Tt][Pp]|[Ii][Cc][Mm][Pp]([Vv]6)?|[Uu][Dd][Pp][Ll][Ii][Tt][Ee]",
    "|[1-9][0-9]{0,2})$"
);
/// A community of any kind.
const COMMUNITY: &str = concat!(
    "^([0-9]{1,10}(:[0-9]{1,10}){1,2}|(rt|soo):[0-9.]{1,15}:[0-9]{1,10}",
    "|no-export|no-advertise|no-export-subconfed|graceful-shutdown|llgr-stale|no-llgr)$"
);

/// Gives each type the schema that is written behind it.
macro_rules! forms {
    ($($(#[$doc:meta])* $name:ident = $schema:tt;)*) => {
        $(
            $(#[$doc])*
            pub(crate) enum $name {}

            inlined!($name = $schema);
        )*
    };
}

macro_rules! inlined {
    ($name:ty = $schema:tt) => {
        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

forms! {
    /// A network with its length.
    Cidr = {"type": "string", "format": "cidr", "maxLength": NETWORK_OCTETS};
    /// A network, or an address that is one by itself.
    Network = {
        "type": "string",
        "maxLength": NETWORK_OCTETS,
        "anyOf": [{"format": "cidr"}, {"format": "ipv4"}, {"format": "ipv6"}],
    };
    /// An AS number as a number or as text.
    AsNumber = {
        "x-kubernetes-int-or-string": true,
        "anyOf": [{"type": "integer"}, {"type": "string"}],
        "minimum": 1,
        "maximum": 4_294_967_294_u32,
        "pattern": r"^[0-9]{1,10}(\.[0-9]{1,5})?$",
        "not": {"enum": [23456, 65535, "0", "23456", "65535", "4294967295"]},
    };
    /// An address with or without a port.
    PeerAddress = {"type": "string", "maxLength": 55, "pattern": r"^([0-9.]+(:[0-9]+)?|[0-9A-Fa-f:.]+|\[[0-9A-Fa-f:.]+\]:[0-9]+)$"};
    /// The name of a resource.
    Name = {"type": "string", "maxLength": 253, "pattern": SUBDOMAIN};
    /// The name of a namespace or a service.
    Label = {"type": "string", "maxLength": 63, "pattern": LABEL};
    /// The tier of a policy.
    TierName = {"type": "string", "maxLength": 63, "pattern": LABEL, "not": {"enum": [ADMIN_TIER, BASELINE_TIER]}};
    /// A key of a Secret.
    SecretKey = {"type": "string", "maxLength": 253, "pattern": r"^([-_a-zA-Z0-9]|\.[-_a-zA-Z0-9])[-_.a-zA-Z0-9]*$"};
    /// The name of an interface in Linux.
    Interface = {"type": "string", "maxLength": 15, "pattern": r"^[^/:\s]+$", "not": {"enum": [".", ".."]}};
    /// The name of an interface, `*` standing for any characters.
    InterfacePattern = {"type": "string", "maxLength": 15, "pattern": r"^[-._*a-zA-Z0-9]+$"};
    /// A profile of a host endpoint.
    Profile = {"type": "string", "enum": [DEFAULT_ALLOW]};
    /// What a port is called.
    PortName = {"type": "string", "maxLength": 128, "pattern": r"^[-_.a-zA-Z0-9]*[-_.a-zA-Z][-_.a-zA-Z0-9]*$"};
}

inlined!(Metadata = {"type": "object"});
inlined!(Selector = {"type": "string"});
inlined!(Order = {"type": "number"});
inlined!(Family = {"type": "integer", "enum": [4, 6]});
inlined!(Protocol = {
    "x-kubernetes-int-or-string": true,
    "anyOf": [{"type": "integer"}, {"type": "string"}],
    "minimum": 1,
    "maximum": 255,
    "pattern": PROTOCOL,
});
inlined!(Port = {
    "x-kubernetes-int-or-string": true,
    "anyOf": [{"type": "integer"}, {"type": "string"}],
    "minimum": 0,
    "maximum": 65535,
    "maxLength": 128,
    "pattern": "^([0-9]{1,5}:[0-9]{1,5}|[-_.a-zA-Z0-9]+)$",
});
inlined!(PortOrName = {
    "x-kubernetes-int-or-string": true,
    "anyOf": [{"type": "integer"}, {"type": "string"}],
    "minimum": 1,
    "maximum": 65535,
    "maxLength": 15,
});
inlined!(Community = {
    "type": "string",
    "pattern": COMMUNITY,
});

/// A list in which nothing stands twice.
pub(crate) struct Set<T>(PhantomData<T>);

impl<T: JsonSchema> JsonSchema for Set<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Set_of_{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let items = generator.subschema_for::<T>();
        json_schema!({"type": "array", "items": items, "x-kubernetes-list-type": "set"})
    }
}
