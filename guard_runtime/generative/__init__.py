"""How decoder guards are asked, run and read."""
