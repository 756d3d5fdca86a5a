"""The URLs of the test site, and one more that tells how many loops of ``/ws/random/`` run in the process."""

import gc

from django.http import JsonResponse
from django.urls import include, path
from greenlet import greenlet

from chat.consumers import RandomConsumer

LOOP = RandomConsumer.connect.__code__


def loops(request):
    # Not isinstance(), which wakes lazy objects up.
    greenlets = [each for each in gc.get_objects() if issubclass(type(each), greenlet)]
    return JsonResponse(sum(map(_is_in_loop, greenlets)), safe=False)


def _is_in_loop(suspended):
    frame = suspended.gr_frame
    while frame is not None and frame.f_code is not LOOP:
        frame = frame.f_back
    return frame is not None


urlpatterns = [path("test/loops/", loops), path("", include("tests.integration.sites.urls"))]
