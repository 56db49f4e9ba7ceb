//! Protobuf, walked in place (wire format: protobuf documentation, "Encoding").
//!
//! Owns reading fields from a byte slice without copying and without allocating. Unknown fields are skipped, groups
//! are refused, and so is a known field that has another wire type than it should.

/// What is wrong with the bytes.
pub(crate) type Broken = &'static str;

/// Content of one field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32,
}

const WRONG_TYPE: Broken = "a field has a wire type that does not belong to it";

impl<'a> Value<'a> {
    #[inline]
    pub(crate) fn bytes(self) -> Result<&'a [u8], Broken> {
        if let Value::Bytes(b) = self { Ok(b) } else { Err(WRONG_TYPE) }
    }

    #[inline]
    pub(crate) fn double(self) -> Result<f64, Broken> {
        if let Value::Fixed64(bits) = self { Ok(f64::from_bits(bits)) } else { Err(WRONG_TYPE) }
    }

    #[inline]
    pub(crate) fn uint(self) -> Result<u64, Broken> {
        if let Value::Varint(v) = self { Ok(v) } else { Err(WRONG_TYPE) }
    }

    #[inline]
    pub(crate) fn int(self) -> Result<i64, Broken> {
        self.uint().map(|v| v as i64)
    }

    pub(crate) fn zigzag32(self) -> Result<i32, Broken> {
        self.uint().map(|v| unzigzag(u64::from(v as u32)) as i32)
    }
}

pub(crate) fn unzigzag(v: u64) -> i64 {
    (v >> 1) as i64 ^ -((v & 1) as i64)
}

#[inline]
pub(crate) fn varint(rest: &mut &[u8]) -> Result<u64, Broken> {
    match rest.split_first() {
        Some((&first, tail)) if first < 0x80 => {
            *rest = tail;
            Ok(u64::from(first))
        }
        _ => long_varint(rest),
    }
}

fn long_varint(rest: &mut &[u8]) -> Result<u64, Broken> {
    let mut value = 0u64;
    for shift in (0..70).step_by(7) {
        let (&first, tail) = rest.split_first().ok_or("cut off inside a number")?;
        *rest = tail;
        if shift == 63 && first > 1 {
            return Err("a number does not fit 64 bits");
        }
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err("a number is longer than ten bytes")
}

#[inline]
fn take<'a>(rest: &mut &'a [u8], n: u64) -> Result<&'a [u8], Broken> {
    let n = usize::try_from(n).map_err(|_| "a length is beyond memory")?;
    let (head, tail) = rest.split_at_checked(n).ok_or("cut off inside a field")?;
    *rest = tail;
    Ok(head)
}

#[inline]
pub(crate) fn fixed64(rest: &mut &[u8]) -> Result<u64, Broken> {
    let (head, tail) = rest.split_first_chunk::<8>().ok_or("cut off inside a number")?;
    *rest = tail;
    Ok(u64::from_le_bytes(*head))
}

/// The fields of one message.
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    #[inline]
    pub(crate) fn of(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    /// Number and content of the next field; `None` at the end.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<Option<(u64, Value<'a>)>, Broken> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let key = varint(&mut self.rest)?;
        if key >> 3 == 0 {
            return Err("a field has the number 0");
        }
        let value = match key & 7 {
            2 => {
                let n = varint(&mut self.rest)?;
                Value::Bytes(take(&mut self.rest, n)?)
            }
            0 => Value::Varint(varint(&mut self.rest)?),
            1 => Value::Fixed64(fixed64(&mut self.rest)?),
            5 => {
                take(&mut self.rest, 4)?;
                Value::Fixed32
            }
            _ => return Err("a field has an unknown wire type"),
        };
        Ok(Some((key >> 3, value)))
    }
}

/// The numbers of a repeated field, packed or one by one.
pub(crate) fn each_uint(value: Value<'_>, mut one: impl FnMut(u64)) -> Result<(), Broken> {
    match value {
        Value::Varint(v) => one(v),
        Value::Bytes(mut packed) => {
            while !packed.is_empty() {
                one(varint(&mut packed)?);
            }
        }
        _ => return Err(WRONG_TYPE),
    }
    Ok(())
}

/// The doubles of a repeated field, packed or one by one.
pub(crate) fn each_double(value: Value<'_>, mut one: impl FnMut(f64)) -> Result<(), Broken> {
    match value {
        Value::Fixed64(bits) => one(f64::from_bits(bits)),
        Value::Bytes(mut packed) => {
            while !packed.is_empty() {
                one(f64::from_bits(fixed64(&mut packed)?));
            }
        }
        _ => return Err(WRONG_TYPE),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        let read = |mut b: &[u8]| varint(&mut b);
        assert_eq!(read(&[0x7f]), Ok(127));
        assert_eq!(read(&[0xac, 0x02]), Ok(300));
        assert_eq!(read(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]), Ok(u64::MAX));
        assert!(read(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]).is_err());
        assert!(read(&[0x80; 11]).is_err() && read(&[0x80]).is_err() && read(&[]).is_err());
        assert_eq!((unzigzag(0), unzigzag(1), unzigzag(2), unzigzag(u64::MAX)), (0, -1, 1, i64::MIN));
    }

    #[test]
    fn fields() {
        let mut f =
            Fields::of(&[0x08, 5, 0x12, 1, b'x', 0x1d, 1, 2, 3, 4, 0x21, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f]);
        assert_eq!(f.next(), Ok(Some((1, Value::Varint(5)))));
        assert_eq!(f.next(), Ok(Some((2, Value::Bytes(b"x")))));
        assert_eq!(f.next(), Ok(Some((3, Value::Fixed32))));
        assert_eq!(f.next().map(|v| v.map(|(_, v)| v.double())), Ok(Some(Ok(1.0))));
        assert_eq!(f.next(), Ok(None));
        for broken in [&[0x12, 9, 1][..], &[0x0b], &[0x00, 1], &[0x09, 1]] {
            assert!(Fields::of(broken).next().is_err(), "{broken:?}");
        }
    }

    #[test]
    fn packed_or_not() {
        let (mut seen, mut doubles) = (Vec::new(), Vec::new());
        each_uint(Value::Bytes(&[1, 0xac, 2]), |v| seen.push(v)).unwrap();
        each_uint(Value::Varint(7), |v| seen.push(v)).unwrap();
        assert_eq!(seen, [1, 300, 7]);
        each_double(Value::Bytes(&1.5f64.to_le_bytes()), |v| doubles.push(v)).unwrap();
        assert_eq!(doubles, [1.5]);
        assert!(each_double(Value::Bytes(&[1]), |_| ()).is_err());
        assert!(each_uint(Value::Fixed32, |_| ()).is_err());
    }
}
