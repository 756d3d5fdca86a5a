"""The URLs of the sample site, and the one by which a site proves that it is the one that was started."""

import os

from django.http import HttpRequest, JsonResponse
from django.urls import include, path


def whoami(request: HttpRequest) -> JsonResponse:
    """Answer with the token that the site was started with, the process and the name of the user."""
    return JsonResponse({"token": os.environ["SITE_TOKEN"], "pid": os.getpid(), "user": request.user.get_username()})


urlpatterns = [path("test/whoami/", whoami), path("", include("project.urls"))]
