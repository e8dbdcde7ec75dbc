"""What a run is: its folder, files, log, summary and identity; `node_cli.load_run` reads one back."""
