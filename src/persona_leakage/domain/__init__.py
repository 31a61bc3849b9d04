"""What all else stands on: frozen value types of the study, errors, packages. It imports nothing else of the project."""
