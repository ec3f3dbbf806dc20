//! What protocol version 2 adds: a large transaction comes in chunks before it has ended.
//!
//! ```text
//! Start(xid) … Stop   Start(other) … Stop   Start(xid) … Stop   Commit(xid)  or  Abort(xid)
//!             └ between chunks: other transactions, whole, and Abort(xid, subxid)
//! ```
//!
//! Within a chunk each message has the id of its transaction or subtransaction after its tag. The
//! danger: the same tag then means other bytes, so that only who keeps track of chunks can decode.

use tokio_postgres::types::PgLsn;

use super::{Bytes, Malformed, Result};

/// A message that says something about chunks, never part of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// A chunk of this transaction begins; `is_first` when none of it has been sent before.
    Start { xid: u32, is_first: bool },
    /// The chunk ends.
    Stop,
    /// The transaction has committed.
    Commit(StreamCommit),
    /// The subtransaction `subxid`, or all of it where the two are equal, has been rolled back.
    Abort { xid: u32, subxid: u32 },
}

/// The end of a transaction that came in chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamCommit {
    pub xid: u32,
    pub commit_lsn: PgLsn,
    pub end_lsn: PgLsn,
    /// Microseconds since 2000.
    pub commit_time: u64,
}

/// Reads a message about chunks; `None` when it is none.
pub fn mark(message: &[u8]) -> Result<Option<Mark>> {
    let mut bytes = Bytes(message);
    let mark = match bytes.u8()? {
        b'S' => Mark::Start {
            xid: bytes.u32()?,
            is_first: bytes.u8()? != 0,
        },
        b'E' => Mark::Stop,
        b'c' => {
            let xid = bytes.u32()?;
            let _flags = bytes.u8()?;
            Mark::Commit(StreamCommit {
                xid,
                commit_lsn: bytes.lsn()?,
                end_lsn: bytes.lsn()?,
                commit_time: bytes.u64()?,
            })
        }
        b'A' => Mark::Abort {
            xid: bytes.u32()?,
            subxid: bytes.u32()?,
        },
        _ => return Ok(None),
    };
    bytes.end()?;
    Ok(Some(mark))
}

/// Takes a message within a chunk apart: whose it is, and what follows the tag without that.
pub fn within_chunk(message: &[u8]) -> Result<(u32, &[u8])> {
    let mut bytes = Bytes(message);
    let _tag = bytes.u8()?;
    Ok((bytes.u32()?, bytes.0))
}

impl StreamCommit {
    /// The `Begin` that the transaction would have had, had it arrived whole.
    pub fn begin_message(&self) -> Vec<u8> {
        let lsn = u64::from(self.commit_lsn).to_be_bytes();
        let (time, xid) = (self.commit_time.to_be_bytes(), self.xid.to_be_bytes());
        [&b"B"[..], &lsn, &time, &xid].concat()
    }

    /// And its `Commit`.
    pub fn commit_message(&self) -> Vec<u8> {
        let lsn = u64::from(self.commit_lsn).to_be_bytes();
        let end = u64::from(self.end_lsn).to_be_bytes();
        [&b"C\0"[..], &lsn, &end, &self.commit_time.to_be_bytes()].concat()
    }
}

/// Why a message within a chunk cannot be what it says.
pub(crate) const MISPLACED: Malformed = Malformed("a chunk of a transaction begins or ends amiss");

#[cfg(test)]
mod tests {
    use super::super::{Message, decode};
    use super::*;

    fn stream_commit() -> StreamCommit {
        StreamCommit {
            xid: 7,
            commit_lsn: PgLsn::from(20),
            end_lsn: PgLsn::from(30),
            commit_time: 5,
        }
    }

    #[test]
    fn a_mark_cut_short_or_with_more_behind_it_is_an_error() {
        let commit = [
            &b"c\0\0\0\x07\0"[..],
            &20_u64.to_be_bytes(),
            &30_u64.to_be_bytes(),
            &5_u64.to_be_bytes(),
        ]
        .concat();
        let marks: [(&[u8], Mark); 4] = [
            (
                b"S\0\0\0\x07\x01",
                Mark::Start {
                    xid: 7,
                    is_first: true,
                },
            ),
            (b"E", Mark::Stop),
            (&commit, Mark::Commit(stream_commit())),
            (b"A\0\0\0\x07\0\0\0\x09", Mark::Abort { xid: 7, subxid: 9 }),
        ];
        for (bytes, expected) in marks {
            assert_eq!(mark(bytes), Ok(Some(expected)));
            for end in 0..bytes.len() {
                assert!(mark(&bytes[..end]).is_err());
            }
            assert!(mark(&[bytes, b"x"].concat()).is_err());
        }
    }

    #[test]
    fn a_transaction_from_chunks_begins_and_ends_as_a_whole_one() {
        let begin = Message::Begin {
            commit_lsn: PgLsn::from(20),
            commit_time: 5,
        };
        assert_eq!(decode(&stream_commit().begin_message()), Ok(begin));
        let commit = Message::Commit {
            end_lsn: PgLsn::from(30),
        };
        assert_eq!(decode(&stream_commit().commit_message()), Ok(commit));
    }
}
