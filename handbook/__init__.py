"""How docs become a site: what is generated from the code, and what is checked of the built pages."""
