"""What a specialist is put to: masks for new images, a spotter of animals, a production line, a web page."""
