//! Fixed-width base 62 over `0-9A-Za-z`.
//!
//! The alphabet is in ASCII order, so texts of the same width sort as the numbers they stand for.

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Writes `value` in `width` digits, keeping the lowest digits when it needs more.
pub fn encode(mut value: u64, width: usize) -> String {
    let mut digits = vec![b'0'; width];
    for digit in digits.iter_mut().rev() {
        *digit = digit_of(value % 62);
        value /= 62;
    }
    digits.into_iter().map(char::from).collect()
}

/// Writes 256 bits, most significant byte first, in the 43 digits that they need (62^43 > 2^256).
pub fn encode_256(bytes: &[u8; 32]) -> String {
    let mut number = *bytes;
    let mut digits = [b'0'; 43];
    for digit in digits.iter_mut().rev() {
        let mut remainder = 0_u16;
        for byte in &mut number {
            let dividend = (remainder << 8) | u16::from(*byte);
            *byte = (dividend / 62) as u8;
            remainder = dividend % 62;
        }
        *digit = digit_of(u64::from(remainder));
    }
    number.fill(0);
    digits.into_iter().map(char::from).collect()
}

/// Reads what [`encode`] wrote. `None` for another character or a number above `u64::MAX`.
pub fn decode(text: &str) -> Option<u64> {
    text.bytes().try_fold(0_u64, |value, byte| {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'A'..=b'Z' => byte - b'A' + 10,
            b'a'..=b'z' => byte - b'a' + 36,
            _ => return None,
        };
        value.checked_mul(62)?.checked_add(u64::from(digit))
    })
}

fn digit_of(value: u64) -> u8 {
    usize::try_from(value).ok().and_then(|index| ALPHABET.get(index)).copied().unwrap_or(b'0')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_values() {
        assert_eq!(encode(0, 6), "000000");
        assert_eq!(encode(u64::from(u32::MAX), 6), "4gfFC3");
        assert_eq!(encode(i64::MAX as u64, 11), "AzL8n0Y58m7");
        assert_eq!(encode_256(&[0; 32]), "0".repeat(43));
        assert_eq!(decode("AzL8n0Y58m7"), Some(i64::MAX as u64));
        assert_eq!(decode("a-b"), None);
        assert_eq!(decode("zzzzzzzzzzz"), None, "above u64::MAX");
    }

    proptest! {
        #[test]
        fn encoded_numbers_read_back(value: u64) {
            prop_assert_eq!(decode(&encode(value, 11)), Some(value));
        }

        #[test]
        fn texts_sort_as_their_numbers(a: u64, b: u64) {
            prop_assert_eq!(encode(a, 11).cmp(&encode(b, 11)), a.cmp(&b));
        }

        #[test]
        fn different_secrets_have_different_texts(a: [u8; 32], b: [u8; 32]) {
            prop_assert_eq!(encode_256(&a) == encode_256(&b), a == b);
        }
    }
}
