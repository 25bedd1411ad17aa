//! The memkv server's program: one node, or several as a demo. All else is in the library.

use std::path::{Path, PathBuf};
use std::process::exit;

use memkv_proto::ErrorCode;
use memkv_server::args::{Args, Mode, parse};
use memkv_server::peer::random_hex;
use memkv_server::settings::Settings;
use memkv_server::{
    cert, console, demo, doctor, process, recover, reset, restore, run, salvage, upgrade,
};

/// It gives memory back to the system also where threads free what others have allocated and sizes differ, as
/// values do: beside it, others kept several times what was in use. `.cargo/config.toml` has its settings.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Exit code for a wrong command line or configuration.
const EXIT_CONFIG: u8 = 2;

fn main() {
    let args = parse(std::env::args_os()).unwrap_or_else(|error| error.exit());
    let code = start(args);
    // Not a return: threads that still run must not delay the end.
    exit(code.into());
}

fn start(args: Args) -> u8 {
    if let Some(parent) = args.parent
        && !process::end_with(parent)
    {
        console::error("the process that started this node has ended");
        return EXIT_CONFIG;
    }
    if let Some(name) = unreadable_variable() {
        console::coded_error(
            format_args!("{name} is not UTF-8 text"),
            ErrorCode::BadConfig,
        );
        return EXIT_CONFIG;
    }
    let variable = |name: &str| std::env::var(name).ok();
    match args.mode {
        Mode::Demo(demo) => demo::run(demo, &args.overrides),
        Mode::Secret => {
            console::out(random_hex());
            0
        }
        Mode::Cert(args) => cert::run(&args),
        Mode::ResetAdmin(args) => {
            process::keep_private();
            reset::run(&args)
        }
        Mode::Restore { config, args: what } => {
            process::keep_private();
            restore::run(&what, config.as_deref(), &args.overrides, variable)
        }
        Mode::UpgradeCheck { config, args: what } => {
            upgrade::run(&what, config, &args.overrides, variable)
        }
        Mode::Doctor { config, args: what } => {
            process::keep_private();
            doctor::run(&what, config, &args.overrides, variable)
        }
        Mode::Salvage { config, args: what } => {
            process::keep_private();
            salvage::run(&what, config.as_deref(), &args.overrides, variable)
        }
        Mode::Recover { config, args: what } => {
            process::keep_private();
            recover::run(&what, config.as_deref(), &args.overrides, variable)
        }
        Mode::Node { config, bind } => {
            process::keep_private();
            let config = match work_in(args.data.as_deref(), config) {
                Ok(config) => config,
                Err(error) => {
                    console::coded_error(error, ErrorCode::BadConfig);
                    return EXIT_CONFIG;
                }
            };
            let settings = Settings::load(
                config.as_deref(),
                bind.as_deref(),
                &args.overrides,
                variable,
            );
            match settings {
                Ok(settings) => run::node(settings),
                Err(error) => {
                    console::coded_error(error, ErrorCode::BadConfig);
                    EXIT_CONFIG
                }
            }
        }
    }
}

/// Makes `data` the working directory. A configuration file that was named is still that of before.
fn work_in(data: Option<&Path>, config: Option<PathBuf>) -> Result<Option<PathBuf>, String> {
    let Some(data) = data else {
        return Ok(config);
    };
    let config = config.map(std::path::absolute).transpose();
    let config =
        config.map_err(|error| format!("the working directory cannot be read: {error}"))?;
    std::fs::create_dir_all(data)
        .and_then(|()| std::env::set_current_dir(data))
        .map_err(|error| {
            let data = data.display();
            format!("cannot use the directory {data} (--data): {error}; name one that this user may write")
        })?;
    Ok(config)
}

/// A variable for this program that is no text: to pass it over could mean to serve without a password.
fn unreadable_variable() -> Option<String> {
    std::env::vars_os().find_map(|(name, value)| {
        let name = name.into_string().ok()?;
        (name.starts_with("MEMKV_") && value.into_string().is_err()).then_some(name)
    })
}
