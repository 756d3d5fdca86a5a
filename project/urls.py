from django.contrib import admin
from django.contrib.auth import views as auth
from django.urls import include, path

from wsloop import health, views

urlpatterns = [
    path("", include("chat.urls")),
    path("accounts/login/", auth.LoginView.as_view(), name="login"),
    path("accounts/logout/", auth.LogoutView.as_view(), name="logout"),
    path("admin/", admin.site.urls),
    path("healthz", health.healthz),
    path("readyz", health.readyz),
    path("metrics/", views.metrics),
    path("ops/", include("wsloop.ops.urls")),
]
