//! Functions on times.

use super::{Functions, count, text_arg};
use crate::template::run;
use crate::template::time::{self, GoDuration, GoTime};
use crate::template::value::{Value, as_object, object, text, type_name};

pub(super) fn add_prometheus(functions: Functions) -> Functions {
    functions
}

pub(super) fn add_alertmanager(functions: Functions) -> Functions {
    functions
        .with("now", |args| {
            count("now", args, 0)?;
            Ok(object(GoTime::from_ms(run::env().now)))
        })
        .with("since", |args| {
            count("since", args, 1)?;
            let nanos = GoTime::from_ms(run::env().now).nanos_since(&time_arg(args, 0)?);
            Ok(object(GoDuration(nanos)))
        })
        .with("date", |args| {
            count("date", args, 2)?;
            Ok(text(time_arg(args, 1)?.format(text_arg(args, 0)?)))
        })
        .with("tz", |args| {
            count("tz", args, 2)?;
            time_arg(args, 1)?.in_zone(text_arg(args, 0)?).map(object)
        })
        .with("toDate", |args| {
            count("toDate", args, 2)?;
            let parsed = time::parse(text_arg(args, 0)?, text_arg(args, 1)?);
            Ok(object(parsed.unwrap_or_else(|_| GoTime::zero())))
        })
        .with("mustToDate", |args| {
            count("mustToDate", args, 2)?;
            time::parse(text_arg(args, 0)?, text_arg(args, 1)?).map(object)
        })
}

fn time_arg(args: &[Value], index: usize) -> Result<GoTime, String> {
    as_object(&args[index])
        .and_then(|object| object.as_any().downcast_ref::<GoTime>().cloned())
        .ok_or_else(|| format!("wrong type for value; expected time.Time; got {}", type_name(&args[index])))
}
