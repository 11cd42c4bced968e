"""Generated images with exact masks: textures, materials, silhouettes, scenes, and the camera that takes them."""
