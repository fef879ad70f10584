"""What a policy says and what it decides; pure."""
