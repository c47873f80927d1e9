"""Run one subcommand of hs-eval or hs-calibrate a file."""
