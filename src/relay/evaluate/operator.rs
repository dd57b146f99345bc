//! Operators on two values. As in Relay's evaluator (leg's gval), operands are converted: a text of a number is a number,
//! and any scalar is a text beside a text.

use serde_json::Value as Json;

use super::error::{EvaluationError, Result};
use super::meter::Meter;
use crate::relay::expression::BinaryOperator;

/// A boolean, or the text of a boolean.
///
/// # Errors
/// If it is neither.
pub fn truth(value: &Json) -> Result<bool> {
    let truth = value.as_bool().or_else(|| value.as_str()?.parse().ok());
    truth.ok_or_else(|| EvaluationError::new("expected true or false"))
}

/// True if two values are equal, also if only one of them is a text.
///
/// # Errors
/// If the budget is spent.
pub fn equal(left: &Json, right: &Json, meter: &mut Meter) -> Result<bool> {
    Ok(match (number(left), number(right)) {
        (Some(left_number), Some(right_number)) if !(left.is_string() && right.is_string()) => {
            left_number == right_number
        }
        _ if left.is_string() != right.is_string() && is_scalar(left) && is_scalar(right) => {
            meter.text(left)? == meter.text(right)?
        }
        _ => left == right,
    })
}

/// True if two numbers, or else two texts, are in the order of the operator.
///
/// # Errors
/// If they are neither, or the budget is spent.
pub fn compare(
    operator: BinaryOperator,
    left: &Json,
    right: &Json,
    meter: &mut Meter,
) -> Result<bool> {
    let ordering = match (number(left), number(right)) {
        (Some(left), Some(right)) => left.partial_cmp(&right),
        _ if is_scalar(left) && is_scalar(right) => {
            Some(meter.text(left)?.cmp(&meter.text(right)?))
        }
        _ => None,
    };
    let wrong = || EvaluationError::new("only numbers and texts can be compared");
    let ordering = ordering.ok_or_else(wrong)?;
    Ok(match operator {
        BinaryOperator::Less => ordering.is_lt(),
        BinaryOperator::LessOrEqual => ordering.is_le(),
        BinaryOperator::Greater => ordering.is_gt(),
        _ => ordering.is_ge(),
    })
}

/// True if a text matches a regular expression.
///
/// # Errors
/// If the pattern is not a regular expression or is too large, or the budget is spent.
pub fn matches(value: &Json, pattern: &Json, meter: &mut Meter) -> Result<bool> {
    /// The largest compiled pattern, in bytes.
    const MAX_PATTERN_BYTES: usize = 64 * 1024;
    /// The most states that a compiled pattern of that size has, about.
    const MAX_STATES: usize = MAX_PATTERN_BYTES / 32;
    let wrong = || EvaluationError::new("=~ wants a text and a regular expression");
    let pattern = pattern.as_str().filter(|_| is_scalar(value)).ok_or_else(wrong)?;
    let text = meter.text(value)?;
    // Only a counted repetition has more states than characters.
    let states = if pattern.contains('{') { MAX_STATES } else { pattern.len() };
    // The compiler visits each state once; matching visits each once per byte of the text.
    meter.pay(states.saturating_mul(text.len() + 1))?;
    let built = regex_lite::RegexBuilder::new(pattern).size_limit(MAX_PATTERN_BYTES).build();
    Ok(built.map_err(|_| wrong())?.is_match(&text))
}

/// The result of arithmetic on two numbers, or of adding two texts.
///
/// # Errors
/// If they are neither, the result is not a finite number, or the budget is spent.
pub fn arithmetic(
    operator: BinaryOperator,
    left: &Json,
    right: &Json,
    meter: &mut Meter,
) -> Result<Json> {
    let is_text = left.is_string() || right.is_string();
    if operator == BinaryOperator::Add && is_text && is_scalar(left) && is_scalar(right) {
        return Ok(Json::from(meter.text(left)? + &meter.text(right)?));
    }
    if let Some((left, right)) = left.as_i64().zip(right.as_i64()) {
        let answer = match operator {
            BinaryOperator::Add => left.checked_add(right),
            BinaryOperator::Subtract => left.checked_sub(right),
            BinaryOperator::Multiply => left.checked_mul(right),
            BinaryOperator::Remainder => left.checked_rem(right),
            BinaryOperator::Divide if left.checked_rem(right) == Some(0) => left.checked_div(right),
            _ => None,
        };
        if let Some(answer) = answer {
            return Ok(Json::from(answer));
        }
    }
    let wrong = || EvaluationError::new("arithmetic wants numbers, and + texts or numbers");
    let (left, right) = number(left).zip(number(right)).ok_or_else(wrong)?;
    let answer = match operator {
        BinaryOperator::Add => left + right,
        BinaryOperator::Subtract => left - right,
        BinaryOperator::Multiply => left * right,
        BinaryOperator::Divide => left / right,
        BinaryOperator::Remainder => left % right,
        BinaryOperator::Power => left.powf(right),
        _ => return Err(wrong()),
    };
    let number = serde_json::Number::from_f64(answer);
    number.map(Json::Number).ok_or_else(|| EvaluationError::new("not a finite number"))
}

fn number(value: &Json) -> Option<f64> {
    value
        .as_f64()
        .or_else(|| value.as_str()?.parse().ok().filter(|number: &f64| number.is_finite()))
}

fn is_scalar(value: &Json) -> bool {
    !value.is_array() && !value.is_object() && !value.is_null()
}
