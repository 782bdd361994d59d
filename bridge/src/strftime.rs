//! `strftime_now`: the time as templates print it, from a clock that the caller reads. UTC, English names.

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] = [
    "Thursday",
    "Friday",
    "Saturday",
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
];

struct Date {
    year: i64,
    month: usize, // 1 ..= 12
    day: i64,
    day_of_year: i64, // 1 ..= 366
}

/// Days since 1970-01-01 to the proleptic Gregorian date, by eras of 400 years that begin on the first of March
/// (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn civil_date(days: i64) -> Date {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_from_march = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_from_march + 2) / 153;
    let day = day_from_march - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    let day_of_year = match month {
        1 | 2 => day_from_march - 305, // March to December have 306 days
        _ => day_from_march + 60 + i64::from(leap),
    };
    Date {
        year,
        month: month as usize,
        day,
        day_of_year,
    }
}

pub fn strftime(format: &str, unix_seconds: i64) -> String {
    let days = unix_seconds.div_euclid(86_400);
    let second = unix_seconds.rem_euclid(86_400);
    let date = civil_date(days);
    let (hour, minute) = (second / 3600, second / 60 % 60);
    let weekday = WEEKDAYS[days.rem_euclid(7) as usize];
    let month = MONTHS[date.month - 1];
    let mut text = String::new();
    let mut characters = format.chars();
    while let Some(character) = characters.next() {
        if character != '%' {
            text.push(character);
            continue;
        }
        let mut directive = characters.next();
        let unpadded = directive == Some('-');
        if unpadded {
            directive = characters.next();
        }
        let two = |number: i64| {
            if unpadded {
                number.to_string()
            } else {
                format!("{number:02}")
            }
        };
        match directive {
            Some('Y') => text += &date.year.to_string(),
            Some('y') => text += &two(date.year.rem_euclid(100)),
            Some('m') => text += &two(date.month as i64),
            Some('d') => text += &two(date.day),
            Some('e') => text += &format!("{:2}", date.day),
            Some('j') => text += &format!("{:03}", date.day_of_year),
            Some('B') => text += month,
            Some('b') | Some('h') => text += &month[..3],
            Some('A') => text += weekday,
            Some('a') => text += &weekday[..3],
            Some('H') => text += &two(hour),
            Some('I') => text += &two((hour + 11) % 12 + 1),
            Some('p') => text += if hour < 12 { "AM" } else { "PM" },
            Some('M') => text += &two(minute),
            Some('S') => text += &two(second % 60),
            Some('F') => text += &format!("{}-{:02}-{:02}", date.year, date.month, date.day),
            Some('T') => text += &format!("{hour:02}:{minute:02}:{:02}", second % 60),
            Some('D') | Some('x') => text += &strftime("%m/%d/%y", unix_seconds),
            Some('R') => text += &strftime("%H:%M", unix_seconds),
            Some('X') => text += &strftime("%T", unix_seconds),
            Some('c') => text += &strftime("%a %b %e %T %Y", unix_seconds),
            Some('w') => text += &(days + 4).rem_euclid(7).to_string(),
            Some('u') => text += &((days + 3).rem_euclid(7) + 1).to_string(),
            Some('U') => text += &format!("{:02}", (date.day_of_year + 6 - (days + 4).rem_euclid(7)) / 7),
            Some('W') => text += &format!("{:02}", (date.day_of_year + 6 - (days + 3).rem_euclid(7)) / 7),
            Some('C') => text += &two(date.year.div_euclid(100)),
            Some('s') => text += &unix_seconds.to_string(),
            Some('f') => text += "000000",
            Some('n') => text.push('\n'),
            Some('t') => text.push('\t'),
            Some('Z') => text += "UTC",
            Some('z') => text += "+0000",
            Some('%') => text.push('%'),
            Some(other) => text.extend(['%', other]),
            None => text.push('%'),
        }
    }
    text
}
