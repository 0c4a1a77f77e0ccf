"""What it takes to break onnxtool: commands that try, and keep what came of it in reports/reliability/."""
