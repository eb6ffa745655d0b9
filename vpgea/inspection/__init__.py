"""Looking into what vpgea wrote, and verifying it."""
