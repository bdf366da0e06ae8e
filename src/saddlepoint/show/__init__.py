"""Tables and figures as pure functions of result files. Imports neither torch nor hydra."""
