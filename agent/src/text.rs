//! Text of others made fit for our own log, notices and errors.

/// Cuts at a character's border, so that at most `bytes` are left.
pub(crate) fn truncate(text: &mut String, bytes: usize) {
    if text.len() > bytes {
        let end = (0..=bytes)
            .rev()
            .find(|at| text.is_char_boundary(*at))
            .unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
}

/// One line that a terminal shows as it is: control characters become their escapes.
pub(crate) fn harmless(bytes: &[u8], limit_bytes: usize) -> String {
    let mut text: String = String::from_utf8_lossy(bytes)
        .chars()
        .take(limit_bytes)
        .flat_map(|character| {
            let escaped = character.is_control() && character != '\t';
            let plain = (!escaped).then_some(character);
            plain
                .into_iter()
                .chain(character.escape_default().filter(move |_| escaped))
        })
        .collect();
    truncate(&mut text, limit_bytes);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_others_is_short_and_harmless() {
        assert_eq!(harmless(b"a\x1b[31mb\n", 100), "a\\u{1b}[31mb\\n");
        assert_eq!(harmless("ääää".as_bytes(), 5), "ää…");
        assert_eq!(harmless(b"\xffx", 100), "\u{fffd}x");
    }
}
