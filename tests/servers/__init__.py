"""Real servers for tests: installed, started, killed, paused and secured from here. Nothing of it is mocked."""
