//! Log text on a person's terminal: hostile until made harmless.
//!
//! Only colours (SGR) may reach the terminal, and only when colours are on. Every other control
//! character and escape sequence is shown in caret notation, so that nothing moves the cursor, sets the
//! title, writes the clipboard or answers on standard input. Characters that change the order of text,
//! and bytes that are not UTF-8, are shown by number.

/// A longer colour sequence is not one that a program meant.
const MAX_SGR_BYTES: usize = 64;

/// Appends `text` made harmless. A trailing `\r` (of a line that ended in `\r\n`) is left out. When
/// colours pass, they are reset at the end, so that they stay within the line.
pub(crate) fn push(out: &mut Vec<u8>, text: &[u8], colours: bool) {
    let mut rest = text.strip_suffix(b"\r").unwrap_or(text);
    let mut coloured = false;
    while !rest.is_empty() {
        let clean = rest
            .iter()
            .position(|byte| !matches!(byte, 0x20..=0x7e | b'\t'))
            .unwrap_or(rest.len());
        out.extend_from_slice(&rest[..clean]);
        rest = &rest[clean..];
        let Some(&byte) = rest.first() else { break };
        if byte == 0x1b
            && let Some(length) = sgr_length(rest)
        {
            if colours {
                out.extend_from_slice(&rest[..length]);
                coloured = true;
            }
            rest = &rest[length..];
        } else if byte < 0x80 {
            // The terminal's own notation: ESC is ^[, NUL is ^@, DEL is ^?.
            out.extend_from_slice(&[b'^', byte ^ 0x40]);
            rest = &rest[1..];
        } else {
            rest = &rest[push_character(out, rest)..];
        }
    }
    if coloured {
        out.extend_from_slice(b"\x1b[0m");
    }
}

/// The same for a label, a path or a message, without colours.
pub(crate) fn plain(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    push(&mut out, text.as_bytes(), false);
    String::from_utf8_lossy(&out).into_owned()
}

/// The same for a message that may have several lines.
pub(crate) fn lines(text: &str) -> String {
    text.split('\n').map(plain).collect::<Vec<_>>().join("\n")
}

/// Whether a terminal or a reader could take this character for something other than what it shows:
/// C1 controls, which terminals obey, and characters that reorder, hide or break text.
pub(crate) fn is_deceptive(character: char) -> bool {
    matches!(character,
        '\u{7f}'..='\u{9f}'
        | '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e007f}')
}

/// Appends the first character of `rest`, which is not ASCII; returns the bytes taken.
fn push_character(out: &mut Vec<u8>, rest: &[u8]) -> usize {
    let longest = &rest[..rest.len().min(4)];
    let valid = match std::str::from_utf8(longest) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&longest[..error.valid_up_to()]).unwrap_or_default(),
    };
    match valid.chars().next() {
        Some(character) => {
            let length = character.len_utf8();
            if is_deceptive(character) {
                out.extend_from_slice(format!("<U+{:04X}>", u32::from(character)).as_bytes());
            } else {
                out.extend_from_slice(&rest[..length]);
            }
            length
        }
        None => {
            out.extend_from_slice(format!("\\x{:02x}", rest[0]).as_bytes());
            1
        }
    }
}

/// Length of the colour sequence that `rest` begins with, when it is one that may pass.
fn sgr_length(rest: &[u8]) -> Option<usize> {
    let parameters = rest.strip_prefix(b"\x1b[")?;
    let limit = parameters.len().min(MAX_SGR_BYTES);
    let end = parameters[..limit]
        .iter()
        .position(|byte| !matches!(byte, b'0'..=b'9' | b';' | b':'))?;
    (parameters[end] == b'm' && are_colours(&parameters[..end])).then_some(2 + end + 1)
}

/// Colours, weight, underline and inverse. Not blinking, and not concealing (8), which hides text.
fn are_colours(parameters: &[u8]) -> bool {
    let mut codes = parameters.split(|byte| *byte == b';');
    while let Some(code) = codes.next() {
        // The colon form carries its own arguments: 38:2::255:0:0, 4:3 (curly underline).
        let main = code.split(|byte| *byte == b':').next().unwrap_or_default();
        let number = |digits: &[u8]| -> Option<u16> {
            if digits.is_empty() {
                Some(0)
            } else {
                std::str::from_utf8(digits).ok()?.parse().ok()
            }
        };
        match number(main) {
            Some(38 | 48 | 58) if code.contains(&b':') => {}
            Some(38 | 48 | 58) => {
                let arguments = match codes.next().and_then(number) {
                    Some(5) => 1,
                    Some(2) => 3,
                    _ => return false,
                };
                for _ in 0..arguments {
                    if codes.next().and_then(number).is_none_or(|value| value > 255) {
                        return false;
                    }
                }
            }
            Some(0..=4 | 7 | 9 | 21..=24 | 27 | 29 | 30..=37 | 39..=47 | 49 | 53 | 55 | 59) => {}
            Some(90..=97 | 100..=107) => {}
            _ => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(text: &[u8], colours: bool) -> String {
        let mut out = Vec::new();
        push(&mut out, text, colours);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn colours_pass_when_they_are_on_and_end_with_the_line() {
        let text =
            b"\x1b[1;32m   Compiling\x1b[0m x \x1b[38;5;208mo\x1b[38;2;1;2;3mt\x1b[m\x1b[38:2::1:2:3mc";
        let expected = format!("{}\x1b[0m", std::str::from_utf8(text).unwrap());
        assert_eq!(shown(text, true), expected);
        assert_eq!(shown(text, false), "   Compiling x otc");
    }

    #[test]
    fn plain_text_is_untouched() {
        let text = "tab\there, ümläut, 日本語, 👩\u{200d}🚀, é as e\u{301}";
        assert_eq!(shown(text.as_bytes(), true), text);
    }

    #[test]
    fn everything_else_is_shown_and_not_obeyed() {
        for (text, expected) in [
            // Title, clipboard, hyperlink; ended by BEL and by ST.
            (&b"\x1b]0;owned\x07"[..], "^[]0;owned^G"),
            (b"\x1b]52;c;cm0gLXJm\x1b\\", "^[]52;c;cm0gLXJm^[\\"),
            (
                b"\x1b]8;;javascript:x\x1b\\a\x1b]8;;\x1b\\",
                "^[]8;;javascript:x^[\\a^[]8;;^[\\",
            ),
            // Clear, move, alternate screen, insert into the input, private modes.
            (b"\x1b[2J\x1b[1;1H", "^[[2J^[[1;1H"),
            (b"\x1b[?1049h\x1b[?25l", "^[[?1049h^[[?25l"),
            (b"\x1b[6n\x1b[c\x1b[>c", "^[[6n^[[c^[[>c"),
            (b"\x1bc\x1b(0\x1bP+q544e\x1b\\", "^[c^[(0^[P+q544e^[\\"),
            (b"\x1b_apc\x1b\\\x1b^pm\x1b\\", "^[_apc^[\\^[^pm^[\\"),
            // Almost colours: concealed text, blinking, private and intermediate bytes, cut off, endless.
            (b"\x1b[8mhidden", "^[[8mhidden"),
            (b"\x1b[1;5m!", "^[[1;5m!"),
            (b"\x1b[?1m\x1b[>4;1m\x1b[1 m", "^[[?1m^[[>4;1m^[[1 m"),
            (b"\x1b[31", "^[[31"),
            (
                b"\x1b[38;5m\x1b[38;2;1;2m\x1b[38;5;999m",
                "^[[38;5m^[[38;2;1;2m^[[38;5;999m",
            ),
            // Overwriting, bell, backspace, NUL, DEL, shifts.
            (
                b"safe\rrm -rf\x08\x08\x00\x7f\x0e\x0f\x0b\x0c",
                "safe^Mrm -rf^H^H^@^?^N^O^K^L",
            ),
            // C1 controls as bytes and as characters: CSI, OSC, ST.
            (b"\x9b2J\x9d0;x\x9c", "\\x9b2J\\x9d0;x\\x9c"),
            (
                b"\xc2\x9b31m\xc2\x9d0;x\xc2\x9c\xc2\x85",
                "<U+009B>31m<U+009D>0;x<U+009C><U+0085>",
            ),
            // UTF-8 tricks: overlong ESC and slash, surrogates, cut off, beyond the last character.
            (b"\xc0\x9b[2J\xe0\x80\x9b", "\\xc0\\x9b[2J\\xe0\\x80\\x9b"),
            (
                b"\xed\xa0\x80\xf4\x90\x80\x80",
                "\\xed\\xa0\\x80\\xf4\\x90\\x80\\x80",
            ),
            (b"a\xe2\x82", "a\\xe2\\x82"),
            (b"\xe2\x1b[2J\x82\xac", "\\xe2^[[2J\\x82\\xac"),
            // Reordering and invisible characters, tags.
            ("if \u{202e}nimda\u{2066}".as_bytes(), "if <U+202E>nimda<U+2066>"),
            (
                "pay\u{200b}pal\u{feff}\u{2028}\u{e0041}".as_bytes(),
                "pay<U+200B>pal<U+FEFF><U+2028><U+E0041>",
            ),
        ] {
            assert_eq!(shown(text, true), expected, "{text:?}");
            assert_eq!(shown(text, false), expected, "{text:?}");
        }
    }

    #[test]
    fn the_carriage_return_of_a_windows_line_end_is_left_out() {
        assert_eq!(shown(b"line\r", true), "line");
        assert_eq!(shown(b"10%\r20%\r", true), "10%^M20%");
    }

    proptest! {
        #[test]
        fn whatever_comes_in_no_control_but_tab_and_colours_comes_out(
            text in proptest::collection::vec(
                prop_oneof![any::<u8>(), Just(0x1b), Just(b'['), Just(b'm'), Just(b';'), 0x30u8..0x3a, 0x80u8..0xa0],
                0..80),
        ) {
            let without = shown(&text, false);
            prop_assert!(!without.chars().any(|c| (c.is_control() && c != '\t') || is_deceptive(c)));
            let with = shown(&text, true);
            for (at, _) in with.match_indices('\x1b') {
                prop_assert!(sgr_length(&with.as_bytes()[at..]).is_some());
            }
        }
    }
}
