"""Rules about how training goes: symptoms, with what the evidence favours as their cause."""
