"""From a checkpoint to a guard artefact: torch and transformers live here, and not in the server."""
