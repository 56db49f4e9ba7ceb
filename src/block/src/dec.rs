//! Bounds-checked reading of the block formats: big-endian integers, varints, length-prefixed strings.
//!
//! Invariant: every method either moves forward inside its slice or answers a `BlockError` with the position.

use koios_chunk::varint;

use crate::crc::crc32c;
use crate::error::BlockError;

/// A cursor over a part of a file.
#[derive(Clone, Copy)]
pub(crate) struct Dec<'a> {
    rest: &'a [u8],
    file: &'a str,
    /// Position in the file behind the last byte of `rest`.
    end: u64,
}

impl<'a> Dec<'a> {
    /// Starts at byte `offset` of `bytes`.
    pub(crate) fn at(bytes: &'a [u8], file: &'a str, offset: u64) -> Result<Self, BlockError> {
        let start = usize::try_from(offset).ok().filter(|&o| o <= bytes.len());
        match start {
            Some(start) => Ok(Self { rest: &bytes[start..], file, end: bytes.len() as u64 }),
            None => Err(damaged(file, offset, "points past the end of the file")),
        }
    }

    /// A part framed as `u32 length, content, u32 crc of the content`.
    pub(crate) fn framed_u32(bytes: &'a [u8], file: &'a str, offset: u64) -> Result<Self, BlockError> {
        let mut d = Self::at(bytes, file, offset)?;
        let len = d.be32()? as usize;
        d.checked_content(len)
    }

    /// A part framed as `uvarint length, content, u32 crc of the content`.
    pub(crate) fn framed_uvarint(bytes: &'a [u8], file: &'a str, offset: u64) -> Result<Self, BlockError> {
        let mut d = Self::at(bytes, file, offset)?;
        let len = usize::try_from(d.uvarint()?).map_err(|_| d.damaged("length does not fit"))?;
        d.checked_content(len)
    }

    fn checked_content(mut self, len: usize) -> Result<Self, BlockError> {
        let at = self.offset();
        let content = self.take(len)?;
        if self.be32()? != crc32c(content) {
            return Err(damaged(self.file, at, "checksum does not match"));
        }
        Ok(Self { rest: content, file: self.file, end: at + len as u64 })
    }

    pub(crate) fn damaged(&self, what: &'static str) -> BlockError {
        damaged(self.file, self.offset(), what)
    }

    pub(crate) fn offset(&self) -> u64 {
        self.end - self.rest.len() as u64
    }

    pub(crate) fn remaining(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn take(&mut self, n: usize) -> Result<&'a [u8], BlockError> {
        match self.rest.split_at_checked(n) {
            Some((head, tail)) => {
                self.rest = tail;
                Ok(head)
            }
            None => Err(self.damaged("ends too early")),
        }
    }

    pub(crate) fn u8(&mut self) -> Result<u8, BlockError> {
        Ok(self.take(1)?[0])
    }

    pub(crate) fn be32(&mut self) -> Result<u32, BlockError> {
        let b = self.take(4)?;
        Ok(u32::from_be_bytes([b[0], b[1], b[2], b[3]]))
    }

    pub(crate) fn be64(&mut self) -> Result<u64, BlockError> {
        Ok((u64::from(self.be32()?) << 32) | u64::from(self.be32()?))
    }

    #[inline]
    pub(crate) fn uvarint(&mut self) -> Result<u64, BlockError> {
        varint::get_uvarint(&mut self.rest).ok_or_else(|| self.damaged("not a varint"))
    }

    /// Moves past varints.
    #[inline]
    pub(crate) fn skip_uvarints(&mut self, count: u64) -> Result<(), BlockError> {
        varint::skip_uvarints(&mut self.rest, count).ok_or_else(|| self.damaged("not a varint"))
    }

    pub(crate) fn varint(&mut self) -> Result<i64, BlockError> {
        self.uvarint().map(varint::unzigzag)
    }

    /// A length-prefixed UTF-8 text.
    #[inline]
    pub(crate) fn text(&mut self) -> Result<&'a str, BlockError> {
        let at = self.offset();
        let len = usize::try_from(self.uvarint()?).map_err(|_| self.damaged("length does not fit"))?;
        std::str::from_utf8(self.take(len)?).map_err(|_| damaged(self.file, at, "text is not UTF-8"))
    }
}

pub(crate) fn damaged(file: &str, offset: u64, what: &'static str) -> BlockError {
    BlockError::Damaged { file: file.to_owned(), offset, what }
}
