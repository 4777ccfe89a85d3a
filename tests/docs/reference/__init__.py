"""The tables of options in docs/configuration.md and the JSON schema for editors, written from the code: `make reference`."""
