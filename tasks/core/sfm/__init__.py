"""Structure from motion: photos become cameras, sparse points and undistorted images."""
