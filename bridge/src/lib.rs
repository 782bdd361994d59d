// placeholder while the dependencies warm up
