//! PostgreSQL's own spelling of an encoding's name.
//!
//! A client is greeted before it has a server, and drivers compare what they are told with what they know: `utf-8`, sent by
//! asyncpg even in quotes, is `UTF8` in PostgreSQL's answer. All other values are the server's own after the first query.

/// Returns the name PostgreSQL reports for an encoding that a client may ask for, whatever its letters' case and its
/// punctuation; `None` for a name it does not know. The aliases are those of `src/common/encnames.c`.
pub fn canonical(name: &[u8]) -> Option<&'static str> {
    let mut clean = [0; 24];
    let mut len = 0;
    for byte in name.iter().filter(|byte| byte.is_ascii_alphanumeric()) {
        *clean.get_mut(len)? = byte.to_ascii_lowercase();
        len += 1;
    }
    let found = match &clean[..len] {
        b"utf8" | b"unicode" => "UTF8",
        b"sqlascii" => "SQL_ASCII",
        b"latin1" | b"iso88591" => "LATIN1",
        b"latin2" | b"iso88592" => "LATIN2",
        b"latin3" | b"iso88593" => "LATIN3",
        b"latin4" | b"iso88594" => "LATIN4",
        b"latin5" | b"iso88599" => "LATIN5",
        b"latin6" | b"iso885910" => "LATIN6",
        b"latin7" | b"iso885913" => "LATIN7",
        b"latin8" | b"iso885914" => "LATIN8",
        b"latin9" | b"iso885915" => "LATIN9",
        b"latin10" | b"iso885916" => "LATIN10",
        b"iso88595" => "ISO_8859_5",
        b"iso88596" => "ISO_8859_6",
        b"iso88597" => "ISO_8859_7",
        b"iso88598" => "ISO_8859_8",
        b"win866" | b"alt" | b"windows866" => "WIN866",
        b"win874" | b"windows874" => "WIN874",
        b"win1250" | b"windows1250" => "WIN1250",
        b"win1251" | b"windows1251" | b"win" => "WIN1251",
        b"win1252" | b"windows1252" => "WIN1252",
        b"win1253" | b"windows1253" => "WIN1253",
        b"win1254" | b"windows1254" => "WIN1254",
        b"win1255" | b"windows1255" => "WIN1255",
        b"win1256" | b"windows1256" => "WIN1256",
        b"win1257" | b"windows1257" => "WIN1257",
        b"win1258" | b"windows1258" | b"abc" | b"tcvn" | b"tcvn5712" | b"vscii" => "WIN1258",
        b"koi8r" | b"koi8" => "KOI8R",
        b"koi8u" => "KOI8U",
        b"eucjp" => "EUC_JP",
        b"eucjis2004" => "EUC_JIS_2004",
        b"euccn" => "EUC_CN",
        b"euckr" => "EUC_KR",
        b"euctw" => "EUC_TW",
        b"sjis" | b"mskanji" | b"shiftjis" | b"win932" | b"windows932" => "SJIS",
        b"shiftjis2004" => "SHIFT_JIS_2004",
        b"big5" | b"win950" | b"windows950" => "BIG5",
        b"gbk" | b"win936" | b"windows936" => "GBK",
        b"uhc" | b"win949" | b"windows949" => "UHC",
        b"gb18030" => "GB18030",
        b"johab" => "JOHAB",
        _ => return None,
    };
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encoding_is_known_by_any_spelling_that_postgresql_takes() {
        for (asked, told) in
            [("'utf-8'", "UTF8"), ("Unicode", "UTF8"), ("iso-8859-15", "LATIN9"), ("sql_ascii", "SQL_ASCII")]
        {
            assert_eq!(canonical(asked.as_bytes()), Some(told), "{asked}");
        }
        for unknown in ["", "latin11", "utf8utf8utf8utf8utf8utf8utf8"] {
            assert_eq!(canonical(unknown.as_bytes()), None, "{unknown}");
        }
    }
}
