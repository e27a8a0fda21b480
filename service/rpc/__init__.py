"""Remote procedure calls, whatever transport carries them: methods, and what each call passes."""
