"""Whoever answers queries: B-Pref's six scripted teachers, two controls, and the protocol that people will use too."""

from rayrlhf.teachers.immediate import ImmediateTeacher
from rayrlhf.teachers.make import TeacherError, make_teacher
from rayrlhf.teachers.protocol import Teacher
from rayrlhf.teachers.scripted import PRESETS, Parameters, RandomTeacher, ScriptedTeacher, SilentTeacher

__all__ = [
    "PRESETS",
    "ImmediateTeacher",
    "Parameters",
    "RandomTeacher",
    "ScriptedTeacher",
    "SilentTeacher",
    "Teacher",
    "TeacherError",
    "make_teacher",
]
