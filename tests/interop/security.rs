//! Signed and near sessions: both sides ask for the same, or there is no session.

use std::time::Duration;

use crate::cases::{meet, start};
use crate::net::{Cable, SOON, always, eventually};
use crate::ours::Ours;
use crate::router::{EXTERNAL, INTERNAL, Program, Protection, Session};

/// How long it is worth waiting for a session that must not come.
const NEVER: Duration = Duration::from_secs(4);

fn signed(session: Session) -> Session {
    Session {
        protection: Some(Protection::Password("interop")),
        ..session
    }
}

/// As long as the two sides ask for different things there is no session for us; as soon as they agree there is.
fn only_with(program: &Program, ours: Session, theirs: Session) {
    let cable = Cable::new();
    let router = start(program, &cable, theirs);
    let speaker = Ours::start(&cable, ours, false, &[]);
    always("they do not agree", NEVER, || !speaker.established());
    speaker.set_peer(theirs, cable.ends);
    eventually("they agree", SOON, || {
        speaker.established() && router.established() == 1
    });
}

/// RFC 2385 §2.0: segments are signed, whoever dials; without the password there is no session.
pub(crate) fn md5(program: &Program) {
    for we_wait in [true, false] {
        let session = Session {
            we_wait,
            they_wait: !we_wait,
            ..signed(INTERNAL)
        };
        meet(&Cable::new(), program, session);
    }
    let wrong = Session {
        protection: Some(Protection::Password("another")),
        ..EXTERNAL
    };
    only_with(program, wrong, signed(EXTERNAL));
    only_with(program, EXTERNAL, signed(EXTERNAL));
}

/// RFC 5082 §3: packets leave with TTL 255, and others are dropped, whoever dials.
pub(crate) fn gtsm(program: &Program) {
    let near = Session {
        protection: Some(Protection::Near),
        ..EXTERNAL
    };
    for we_wait in [true, false] {
        let session = Session {
            we_wait,
            they_wait: !we_wait,
            ..near
        };
        meet(&Cable::new(), program, session);
    }
    // Not the other way round: BIRD and FRR look at the TTL only once they have accepted, and take a first OPEN so.
    only_with(program, near, EXTERNAL);
}
