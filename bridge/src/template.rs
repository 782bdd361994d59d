//! template.h over minijinja.

use crate::confined::{self, Overrun};
use crate::errors::{caller_string, contain, guard, Failure, Outcome, Status, View};
use crate::filters;
use crate::json::{python_str, tojson};
use crate::python;
use crate::strftime::strftime;
use minijinja::value::{Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior};
use std::ffi::c_char;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Duration;

const NAME: &str = "chat_template";
const RECURSION_LIMIT: usize = 120;
const MAX_LOST_BYTES: isize = 4096;
const MAX_SIGNS: usize = 10_000; // in a row
const MAX_REFUSAL_BYTES: usize = 16 << 10;

/// `shoal_template_limits`
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Limits {
    fuel: u64,
    memory_bytes: u64,
    output_bytes: u64,
    time_ms: u64,
}

pub struct Template {
    environment: Arc<Environment<'static>>,
    limits: Limits,
    /// Once it has overrun: another try would cost another parked thread.
    condemned: AtomicBool,
}

/// What raise_exception leaves in the chain of errors.
#[derive(Debug)]
struct Refusal(String);

impl std::fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Refusal {}

fn raise_exception(mut message: String) -> Result<Value, Error> {
    if message.len() > MAX_REFUSAL_BYTES {
        let end = (0..=MAX_REFUSAL_BYTES).rfind(|&end| message.is_char_boundary(end));
        message.truncate(end.unwrap_or(0));
    }
    let text = message.clone();
    Err(Error::new(ErrorKind::InvalidOperation, text).with_source(Refusal(message)))
}

/// The parser counts how deeply everything nests but signs: `- - - 1`.
fn has_endless_signs(source: &str) -> bool {
    let mut signs = 0;
    source.chars().any(|character| {
        if matches!(character, '-' | '+') {
            signs += 1;
        } else if !character.is_whitespace() {
            signs = 0;
        }
        signs > MAX_SIGNS
    })
}

fn parse(source: &str, limits: Limits) -> Result<Environment<'static>, Error> {
    if has_endless_signs(source) {
        return Err(Error::new(ErrorKind::SyntaxError, "signs are nested too deeply"));
    }
    let mut environment = Environment::new();
    let syntax = minijinja::syntax::SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .keep_trailing_newline(false)
        .build()?;
    environment.set_syntax(syntax);
    environment.set_undefined_behavior(UndefinedBehavior::Lenient);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_unknown_method_callback(python::unknown_method);
    environment.set_recursion_limit(RECURSION_LIMIT);
    environment.set_fuel(Some(limits.fuel));
    environment.set_formatter(|out, _, value| {
        match value.as_str() {
            Some(text) => out.write_str(text),
            None => out.write_str(&python_str(value)),
        }
        .map_err(Error::from)
    });
    filters::add_to(&mut environment);
    environment.add_filter("tojson", tojson);
    environment.add_test("iterable", python::is_iterable);
    environment.add_test("sequence", python::is_sequence);
    environment.add_test("callable", python::is_callable);
    environment.remove_global("debug");
    environment.add_function("raise_exception", raise_exception);
    // Jinja knows one end of line.
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    environment.add_template_owned(NAME, without_generation_marks(&source))?;
    Ok(environment)
}

/// `{% generation %}` … `{% endgeneration %}` marks what an assistant said, for training. It prints what it holds:
/// `{% if true %}` with the same whitespace rules.
fn without_generation_marks(source: &str) -> String {
    let mut result = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let Some(length) = rest[start..].find("%}") else { break };
        let end = start + length;
        let inside = &rest[start + 2..end];
        let word = inside
            .trim_start_matches(['-', '+'])
            .trim_end_matches(['-', '+'])
            .trim();
        let replacement = match word {
            "generation" => inside.replacen(word, " if true ", 1),
            "endgeneration" => inside.replacen(word, " endif ", 1),
            _ => inside.to_string(),
        };
        result.push_str(&rest[..start + 2]);
        result.push_str(&replacement);
        rest = &rest[end..];
    }
    result + rest
}

/// A writer that refuses what is over the limit.
struct Bounded {
    text: Vec<u8>,
    limit: u64,
}

impl std::io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if (self.text.len() + bytes.len()) as u64 > self.limit {
            return Err(std::io::Error::from(std::io::ErrorKind::FileTooLarge));
        }
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn render(environment: &Environment<'static>, variables: &str, unix_seconds: i64, limits: Limits) -> Outcome<String> {
    let variables: Value = serde_json::from_str(variables)
        .map_err(|error| Failure::new(Status::InvalidArgument, format!("template variables: {error}")))?;
    if variables.kind() != ValueKind::Map {
        return Err(Failure::new(
            Status::InvalidArgument,
            "template variables are not a JSON object",
        ));
    }
    let mut environment = environment.clone();
    environment.add_function("strftime_now", move |format: String| strftime(&format, unix_seconds));
    let mut output = Bounded {
        text: vec![],
        limit: limits.output_bytes,
    };
    let template = environment.get_template(NAME).map_err(failure)?;
    let rendered = template.render_captured_to(variables, &mut output);
    rendered.map_err(failure)?;
    String::from_utf8(output.text).map_err(|error| Failure::new(Status::InvalidArgument, error))
}

fn failure(error: Error) -> Failure {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(current) = cause {
        if let Some(refusal) = current.downcast_ref::<Refusal>() {
            return Failure::new(Status::Refused, &refusal.0);
        }
        if let Some(io) = current.downcast_ref::<std::io::Error>() {
            if io.kind() == std::io::ErrorKind::FileTooLarge {
                return Failure::new(Status::Limit, "chat template: the rendered text is too long");
            }
        }
        cause = current.source();
    }
    let status = match error.kind() {
        ErrorKind::OutOfFuel => Status::Limit,
        ErrorKind::SyntaxError => Status::Malformed,
        _ => Status::InvalidArgument,
    };
    // "syntax error: unexpected end of input (in chat_template:1)"
    Failure::new(status, format!("chat template: {error}"))
}

fn confine<T: Send + 'static>(
    limits: Limits,
    work: impl FnOnce() -> Outcome<T> + Send + 'static,
) -> (Outcome<T>, bool) {
    let overrun = match confined::run(limits.memory_bytes, Duration::from_millis(limits.time_ms), work) {
        Ok(outcome) => return (outcome, false),
        Err(overrun) => overrun,
    };
    let text = match overrun {
        Overrun::Memory => format!("chat template: needs more than {} bytes of memory", limits.memory_bytes),
        Overrun::Fault => {
            return (
                Err(Failure::new(Status::InvalidArgument, "chat template: it cannot be run")),
                false,
            )
        }
        Overrun::Time => format!("chat template: not done after {} ms", limits.time_ms),
    };
    (Err(Failure::new(Status::Limit, text)), true)
}

#[no_mangle]
pub unsafe extern "C" fn shoal_template_open(
    source: View,
    limits: *const Limits,
    parsed: *mut *mut Template,
    error: *mut *mut c_char,
) -> i32 {
    guard(error, || {
        let source = source.text("chat template")?.to_string();
        let limits = *limits;
        let (environment, _) = confine(limits, move || parse(&source, limits).map_err(failure));
        let template = Template {
            environment: Arc::new(environment?),
            limits,
            condemned: AtomicBool::new(false),
        };
        *parsed = Box::into_raw(Box::new(template));
        Ok(())
    })
}

#[no_mangle]
pub unsafe extern "C" fn shoal_template_free(parsed: *mut Template) {
    if !parsed.is_null() {
        contain(|| drop(Box::from_raw(parsed)));
    }
}

#[no_mangle]
pub unsafe extern "C" fn shoal_template_render(
    parsed: *const Template,
    variables: View,
    unix_seconds: i64,
    text: *mut *mut c_char,
    size: *mut usize,
    error: *mut *mut c_char,
) -> i32 {
    guard(error, || {
        let template = &*parsed;
        if template.condemned.load(Ordering::Relaxed) {
            return Err(Failure::new(
                Status::Limit,
                "chat template: it ran over its limits before",
            ));
        }
        let variables = variables.text("template variables")?.to_string();
        let (environment, limits) = (template.environment.clone(), template.limits);
        let (outcome, overran) = confine(limits, move || {
            let held = confined::held_bytes();
            let rendered = render(&environment, &variables, unix_seconds, limits);
            let kept = match &rendered {
                Ok(text) => text.capacity(),
                Err(failure) => failure.text.capacity(),
            };
            Ok((rendered, confined::held_bytes() - held - kept as isize))
        });
        // A value that holds itself is never freed: the next rendering would lose as much again.
        let leaked = outcome
            .as_ref()
            .is_ok_and(|(_, lost_bytes)| *lost_bytes > MAX_LOST_BYTES);
        if overran || leaked {
            template.condemned.store(true, Ordering::Relaxed);
        }
        let rendered = outcome?.0?;
        *text = caller_string(rendered.as_bytes());
        *size = rendered.len();
        Ok(())
    })
}
