//! The SYN that a connection began with: how far it came, and whether it was signed.

/// The options of TCP that sign a segment (RFC 2385 §3, RFC 5925 §2.2).
const MD5: u8 = 19;
const AO: u8 = 29;

/// What the headers of a SYN say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Syn {
    /// The TTL, or hop limit, that was left.
    pub(crate) ttl: u8,
    /// It has an MD5 signature. The kernel has checked it, or would not have answered.
    pub(crate) md5: bool,
    /// It has an authentication option, likewise.
    pub(crate) ao: bool,
}

impl Syn {
    /// Reads the IP and TCP headers; none if they are not whole.
    pub(crate) fn read(headers: &[u8]) -> Option<Self> {
        let (ttl, tcp) = match headers.first()? >> 4 {
            4 => {
                let length = usize::from(headers.first()? & 0xf) * 4;
                (*headers.get(8)?, headers.get(length..)?)
            }
            // What sends extension headers with its SYN has no options that we find, so none that sign.
            _ => (*headers.get(7)?, headers.get(40..)?),
        };
        let length = usize::from(tcp.get(12)? >> 4) * 4;
        let options = kinds(tcp.get(20..length.min(tcp.len()))?);
        Some(Self {
            ttl,
            md5: options.contains(&MD5),
            ao: options.contains(&AO),
        })
    }
}

/// The kinds of the options, as far as they are well formed.
fn kinds(mut options: &[u8]) -> Vec<u8> {
    let mut kinds = Vec::new();
    while let Some((&kind, rest)) = options.split_first() {
        let length = match kind {
            0 => break,
            1 => 1,
            _ => match rest.first() {
                Some(&length @ 2..) => usize::from(length),
                Some(_) | None => break,
            },
        };
        let Some(rest) = options.get(length..) else { break };
        kinds.push(kind);
        options = rest;
    }
    kinds
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(options: &[u8]) -> Vec<u8> {
        let mut headers = vec![0; 40];
        (headers[0], headers[8]) = (0x45, 254);
        headers[32] = u8::try_from(5 + options.len() / 4).unwrap() << 4;
        headers.extend(options);
        headers
    }

    #[test]
    fn a_syn_says_how_far_it_came_and_whether_it_is_signed() {
        let syn = |md5, ao| Some(Syn { ttl: 254, md5, ao });
        let md5 = [&[1, 1, 19, 18][..], &[0; 16]].concat();
        let ao = [&[29, 16][..], &[0; 14]].concat();
        assert_eq!(Syn::read(&v4(&[])), syn(false, false));
        assert_eq!(Syn::read(&v4(&md5)), syn(true, false));
        assert_eq!(Syn::read(&v4(&ao)), syn(false, true));
        assert_eq!(Syn::read(&v4(&[2, 4, 19, 29])), syn(false, false));
        assert_eq!(Syn::read(&v4(&[0, 19, 18, 0])), syn(false, false));
        let mut v6 = vec![0; 60];
        (v6[0], v6[7], v6[52]) = (0x60, 254, 10 << 4);
        v6.extend(&md5);
        assert_eq!(Syn::read(&v6), syn(true, false));
    }

    #[test]
    fn half_a_syn_says_nothing() {
        let whole = v4(&[2, 4, 5, 180]);
        for length in 0..40 {
            assert_eq!(Syn::read(&whole[..length]), None, "{length}");
        }
        for length in [0, 1, 255] {
            assert!(
                !Syn::read(&v4(&[7, length, 19, 2])).is_some_and(|syn| syn.md5),
                "{length}"
            );
        }
    }
}
