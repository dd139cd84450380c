"""The labs: a module each; the table is :data:`sparqsim.scripts.grade.sheet.LABS`."""
