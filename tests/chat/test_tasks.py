"""The list of tasks, without sockets: what may be changed by whom, and what is published."""

import re

import pytest
from django.core.management import call_command
from django.db import connection
from django.test import TestCase
from django.urls import reverse

from chat import demo
from chat.forms import TaskForm
from chat.models import Task

URL = "/tasks/"


@pytest.fixture
def task(database, john, no_redis):
    Task.objects.all().delete()
    return Task.objects.create(text="Buy <b>milk</b>", author=john)


def committed():
    """Run what waits for the commit, which never comes in these tests."""
    return TestCase.captureOnCommitCallbacks(execute=True)


def post(client, as_json=False, **data):
    return client.post(URL, data, headers={"accept": "application/json"} if as_json else {})


def test_everybody_may_read(client, task):
    html = client.get(URL).content.decode()
    assert "Buy &lt;b&gt;milk&lt;/b&gt;" in html
    assert re.search(r'<wsloop-live id="live-tasks-broadcast" data-url="/ws/tasks\?subscribe-broadcast"', html)
    assert "<script>" not in html and "style=" not in html


@pytest.mark.parametrize("data", [{"message": "x"}, {"done": "1"}, {"remove": "1"}])
def test_visitors_have_to_sign_in_to_change_it(client, task, data):
    answer = post(client, **data)
    assert (answer.status_code, answer["Location"]) == (302, f"{reverse('login')}?next={URL}")
    assert post(client, as_json=True, **data).status_code == 403
    assert list(Task.objects.values_list("text", "done")) == [("Buy <b>milk</b>", False)]


@pytest.mark.parametrize("as_json", [False, True])
def test_a_task_is_added_done_opened_and_removed(sign_in, task, as_json):
    mary = sign_in("mary")
    status = 200 if as_json else 302

    def now():
        return [(each.text, each.done, each.author.get_username()) for each in Task.objects.all()]

    assert post(mary, as_json, message="  Bake  ").status_code == status
    assert now() == [("Buy <b>milk</b>", False, "john"), ("Bake", False, "mary")]
    assert post(mary, as_json, done=task.pk).status_code == status
    assert now()[0] == ("Buy <b>milk</b>", True, "john")
    assert post(mary, as_json, open=task.pk).status_code == status
    assert now()[0] == ("Buy <b>milk</b>", False, "john")
    for _ in range(2):  # somebody else may have removed it a moment before
        assert post(mary, as_json, remove=task.pk).status_code == status
        assert now() == [("Bake", False, "mary")]
    assert post(mary, as_json, done=task.pk).status_code == status


@pytest.mark.parametrize("pk", ["", "x", "-1", "\u0661", "1" * 30, "1.5"])
def test_a_task_that_cannot_be_is_refused(sign_in, task, pk):
    answer = post(sign_in("mary"), as_json=True, done=pk)
    assert (answer.status_code, answer.json()["errors"]) == (400, {"__all__": ["There is no such task."]})


@pytest.mark.parametrize("text", ["", "   ", "x" * 201, "\0"])
def test_a_text_that_is_no_task_is_refused(sign_in, task, text):
    assert post(sign_in("mary"), as_json=True, message=text).status_code == 400
    assert "errorlist" in post(sign_in("mary"), message=text).content.decode()
    assert Task.objects.count() == 1


def test_the_list_has_an_end(sign_in, task):
    Task.objects.bulk_create(Task(text="x") for _ in range(TaskForm.MOST_TASKS - 1))
    answer = post(sign_in("mary"), as_json=True, message="one more")
    assert answer.json()["errors"] == {"__all__": ["The list has 100 tasks. Remove some of them first."]}
    assert Task.objects.count() == TaskForm.MOST_TASKS


def test_what_is_published(database, john, listen):
    Task.objects.all().delete()
    channel = listen("broadcast:tasks")
    with committed():
        task = Task.objects.create(text="<milk>", author=john)
    added = channel.next()
    assert added.startswith('<ul id="tasks" hx-swap-oob="beforeend"><li class="task" id="task-')
    assert "&lt;milk&gt;" in added and "csrf" not in added
    with committed():
        task.done = True
        task.save()
    assert f'<li class="task done" id="task-{task.pk}">' in channel.next()
    pk = task.pk
    with committed():
        task.delete()
    assert channel.next().strip() == f'<li id="task-{pk}" hx-swap-oob="delete"></li>'


def test_without_redis_a_task_is_saved_all_the_same(sign_in, task):
    assert post(sign_in("mary"), as_json=True, message="Bake").json() == {"ok": True}
    assert Task.objects.filter(text="Bake").exists()
    *_, (_, _, robust) = connection.run_on_commit
    assert robust  # what publishes it may fail: Django logs the error


def test_staff_change_tasks_in_the_admin(sign_in, task):
    admin = sign_in("admin")
    assert "Buy &lt;b&gt;milk&lt;/b&gt;" in admin.get("/admin/chat/task/").content.decode()
    assert admin.get("/admin/chat/task/?q=milk&done__exact=0").status_code == 200
    admin.post(f"/admin/chat/task/{task.pk}/change/", {"text": "Bread", "done": "on", "author": ""})
    assert list(Task.objects.values_list("text", "done", "author")) == [("Bread", True, None)]
    assert "Bread" in admin.get(URL).content.decode()


def test_demo_data_has_tasks_unless_there_are_some(task):
    call_command("demo_data", verbosity=0)
    assert Task.objects.count() == 1
    task.delete()
    call_command("demo_data", verbosity=0)
    call_command("demo_data", verbosity=0)
    found = Task.objects.values_list("author__username", "text", "done")
    assert list(found) == list(demo.TASKS)
