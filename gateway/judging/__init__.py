"""Guards are asked, the policy is applied, and the text is changed accordingly."""
