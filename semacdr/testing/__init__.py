"""What tests here and elsewhere need: toy artifacts and a tiny language model."""
