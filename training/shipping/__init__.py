"""From weights to an artefact: calibrated, quantised, compared, described."""
