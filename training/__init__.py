"""From base weights and labelled rows to the shipped guard artefact."""
