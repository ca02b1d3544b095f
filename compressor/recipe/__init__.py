"""What a user decides, as frozen data: recipes, their sections, their errors, those that are shipped. No torch here."""
