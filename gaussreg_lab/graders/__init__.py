"""The judges of the exercises, lesson by lesson. None of them uses the formula that its lesson teaches."""
