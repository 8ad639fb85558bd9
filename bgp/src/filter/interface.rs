//! Interfaces by name.

use std::fmt;
use std::str::FromStr;

/// The longest name of an interface in Linux, in octets.
const MAX_NAME: usize = 15;

/// Names of interfaces: one as it is written, or several, where `*` stands for any characters or none.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct InterfacePattern(Box<str>);

/// Text that no interface can be called.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is no interface: write up to {MAX_NAME} letters, digits, '.', '_' and '-', with '*' for any of them, as \
     in eth0 or eth*"
)]
pub struct NotAnInterface(Box<str>);

impl InterfacePattern {
    /// Whether an interface is one of these.
    pub(crate) fn matches(&self, name: &str) -> bool {
        let Some((first, rest)) = self.0.split_once('*') else {
            return *self.0 == *name;
        };
        let (between, last) = rest.rsplit_once('*').unwrap_or(("", rest));
        let inner = name.strip_prefix(first).and_then(|it| it.strip_suffix(last));
        // What comes first is best taken where it comes first: that leaves most for the others.
        let mut left = inner;
        for part in between.split('*') {
            left = left.and_then(|it| it.split_once(part)).map(|(_, after)| after);
        }
        left.is_some()
    }
}

impl FromStr for InterfacePattern {
    type Err = NotAnInterface;

    fn from_str(text: &str) -> Result<Self, NotAnInterface> {
        let known = |octet: u8| octet.is_ascii_alphanumeric() || b"._-*".contains(&octet);
        if (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(known) {
            Ok(Self(text.into()))
        } else {
            Err(NotAnInterface(text.into()))
        }
    }
}

impl fmt::Display for InterfacePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything() {
        for (pattern, names, others) in [
            ("eth0", &["eth0"][..], &["eth01", "eth", "Eth0"][..]),
            ("eth*", &["eth", "eth0", "eth0.100"], &["veth0", "et"]),
            (
                "*.calico",
                &["vxlan.calico", ".calico"],
                &["vxlan-calico", "calico"],
            ),
            ("*", &["eth0", "lo"], &[]),
            (
                "a*b*c",
                &["abc", "a1b2c", "abbc", "abcbc"],
                &["ac", "acb", "ab", "bc"],
            ),
            ("a*a", &["aa", "aba"], &["a", "ab"]),
            ("**x", &["x", "yx"], &["y"]),
        ] {
            let pattern: InterfacePattern = pattern.parse().unwrap();
            for name in names {
                assert!(pattern.matches(name), "{pattern} {name}");
            }
            for name in others {
                assert!(!pattern.matches(name), "{pattern} {name}");
            }
        }
    }

    #[test]
    fn what_no_interface_is_called_is_refused() {
        for text in ["", "eth 0", "eth/0", "sixteenletters16", "é"] {
            let error = text.parse::<InterfacePattern>().unwrap_err();
            assert!(error.to_string().contains("write up to 15 letters"), "{error}");
        }
        assert!("fifteenletters5".parse::<InterfacePattern>().is_ok());
    }
}
