"""Questions to a tuned model beside its scores: does it look, does it follow the prompt, where does it lose?"""
