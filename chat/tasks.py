"""The list of tasks. It is live, but these views know nothing of that: :mod:`chat.models` publishes what they save."""

from http import HTTPStatus

from django.db import transaction
from django.http import JsonResponse
from django.shortcuts import redirect

from chat.forms import TaskForm
from chat.models import Task
from chat.views import PublishView, wants_json

ACTIONS = ("done", "open", "remove")  # names of buttons; their values are primary keys


class Tasks(PublishView):
    """The list: everybody may read it, and who has signed in may add tasks, mark them as done, and remove them."""

    template_name = "chat/tasks.html"
    form_class = TaskForm
    facility = "tasks"
    open_to_all = ("GET", "HEAD")

    def get_context_data(self, **kwargs):
        # The template evaluates the tasks after the token of its socket, so that no change is missed in between.
        return super().get_context_data(tasks=Task.objects.select_related("author"), **kwargs)

    def post(self, request, *args, **kwargs):
        for action in ACTIONS:
            if action in request.POST:
                return self.change(action, request.POST[action])
        return super().post(request, *args, **kwargs)

    def form_valid(self, form):
        Task.objects.create(text=form.cleaned_data["message"], author=self.request.user)
        return self.changed()

    def change(self, action, pk):
        """Change a task. One that somebody else has removed meanwhile is left at that."""
        if not (pk.isascii() and pk.isdecimal() and len(pk) < 19):
            return self.refuse({"__all__": ["There is no such task."]}, HTTPStatus.BAD_REQUEST)
        with transaction.atomic():
            tasks = Task.objects.filter(pk=pk)
            tasks.update(done=action == "done")  # first of all: it locks the task until the end of the transaction
            for task in tasks.select_related("author"):
                if action == "remove":
                    task.delete()
                else:
                    task.save()
        return self.changed()

    def changed(self):
        return JsonResponse({"ok": True}) if wants_json(self.request) else redirect("tasks")
